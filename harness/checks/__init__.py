"""Is it in order? Conformance checks that third-party plug-ins can run, and the machine."""
