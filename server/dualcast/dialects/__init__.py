"""What is said on the wire: pure encoders and decoders, one file per dialect.

In: entries and session facts. Out: SSE blocks or JSON text as bytes; decoded client commands. Must not: do
I/O, know sockets, chunk or frame bytes (that is `transport.frames`).
"""
