"""What nobody outside imports: the engine room of ``EventStore``."""
