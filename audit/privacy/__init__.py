"""What was said: sealed payloads, how long they are kept, and how they go.

payloads   partitions on disk       subjects   which data key a payload is under
opened     opening them             estate     store, wrapped keys and keyring together
retention  classes and sweeps       holds, holding   what nobody may take yet
plans      erasures written down    erasure, belongings   a person, forgotten everywhere
disclosure reading and exporting, each recorded first
servicer, wire, clients   PayloadService at audit's port, and the way to the caches
"""
