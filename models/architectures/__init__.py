"""The architectures of the native engine as plain torch modules: one file per family, and the parts they share."""
