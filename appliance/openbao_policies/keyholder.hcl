# The keyholder takes keys away: trims old versions, and destroys a tenant's key. Nothing else can,
# and it can do nothing else. Its login belongs to another person than the operator's, off this host.

# Its own token: look at it, prolong it, give it back. Nothing of the default policy besides.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

path "transit/keys/+" {
  capabilities = ["read", "delete"]
}
# Never to make a key exportable.
path "transit/keys/+/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
    "deletion_allowed" = []
  }
}
path "transit/keys/+/trim" {
  capabilities = ["update"]
}
# OpenBao only; HashiCorp Vault has no soft delete.
path "transit/keys/+/soft-delete" {
  capabilities = ["delete"]
}
path "transit/keys/+/soft-delete-restore" {
  capabilities = ["update"]
}

# The log's own key signs what everybody checks: it is never destroyed.
path "transit/keys/audit-checkpoint" {
  capabilities = ["read"]
}
path "transit/keys/audit-checkpoint/*" {
  capabilities = ["deny"]
}
