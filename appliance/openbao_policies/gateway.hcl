# The gateway drives calls and holds no key of its own but that of its certificate.

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

# Its own certificate: one exact SPIFFE id, P-256, an hour at most.
path "pki/issue/service.gateway" {
  capabilities = ["update"]
}
