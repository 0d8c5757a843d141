# The operator prepares OpenBao for the services and lets them in. An administrator in effect (it
# writes policies), it has no use of the keys by itself: it can neither decrypt, sign, make data
# keys nor read secrets, and what it does to change that stands in OpenBao's audit file.

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

# Mounts: transit, kv, pki and AppRole, and no others.
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/transit" {
  capabilities = ["create", "update"]
}
path "sys/mounts/kv" {
  capabilities = ["create", "update"]
}
path "sys/mounts/pki" {
  capabilities = ["create", "update"]
}
path "sys/auth" {
  capabilities = ["read"]
}
path "sys/auth/approle" {
  capabilities = ["create", "update", "sudo"]
}

# Policies and logins of the services.
path "sys/policies/acl/*" {
  capabilities = ["create", "read", "update"]
}
path "auth/approle/role/*" {
  capabilities = ["create", "read", "update", "list"]
}
# But not of the keyholder, who alone takes keys away: that login was made by the root token.
path "sys/policies/acl/keyholder" {
  capabilities = ["deny"]
}
path "auth/approle/role/keyholder" {
  capabilities = ["deny"]
}
path "auth/approle/role/keyholder/*" {
  capabilities = ["deny"]
}
# Nor of the model administrator, who alone signs and seals models.
path "sys/policies/acl/model-admin" {
  capabilities = ["deny"]
}
path "auth/approle/role/model-admin" {
  capabilities = ["deny"]
}
path "auth/approle/role/model-admin/*" {
  capabilities = ["deny"]
}

# Keys: make them and see their public side.
path "transit/config/keys" {
  capabilities = ["create", "read", "update"]
}
path "transit/keys" {
  capabilities = ["list"]
}
path "transit/keys/+" {
  capabilities = ["create", "read", "update"]
}
# A new version takes nothing away. Whatever does is the keyholder's: trim, soft-delete, delete, and
# the configuration that allows them.
path "transit/keys/+/rotate" {
  capabilities = ["update"]
}

# Which tenants were destroyed, so that preparing does not give them a new key.
path "kv/data/offboarded/*" {
  capabilities = ["create", "read", "update"]
}

# Secrets: write a first or next version, see how many there are; never read one.
path "kv/data/*" {
  capabilities = ["create", "update"]
}
path "kv/metadata/*" {
  capabilities = ["create", "read", "update"]
}
path "kv/data/audit/checkpoint-lock" {
  capabilities = ["deny"]
}

# The certificate authority, and certificates of tenants' workloads.
path "pki/issuers" {
  capabilities = ["list"]
}
path "pki/root/generate/internal" {
  capabilities = ["create", "update"]
}
# One CA takes over from another: which of them issues, and the end of the older one and its key.
path "pki/config/issuers" {
  capabilities = ["create", "update"]
}
path "pki/issuer/+" {
  capabilities = ["create", "update", "delete"]
}
path "pki/key/+" {
  capabilities = ["delete"]
}
path "pki/roles" {
  capabilities = ["list"]
}
path "pki/roles/*" {
  capabilities = ["create", "read", "update"]
}
path "pki/issue/*" {
  capabilities = ["update"]
}

# Backups: all of it as it lies on OpenBao's disk, sealed under keys that are not in it.
path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}
