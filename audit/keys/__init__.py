"""Keys of the audit service: for payloads and for pseudonyms, and orders about them."""
