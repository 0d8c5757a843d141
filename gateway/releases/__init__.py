"""ModelService at the gateway's port: who may change which version of a model answers."""
