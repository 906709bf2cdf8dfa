"""Edge: the HTTP surfaces. Routes, ASGI plumbing, and the small read-only endpoints; the calls themselves go to `pipeline`."""
