"""What is recorded, and how it is read: leaves, OCSF, notes of services, documents by digest."""
