"""The service as it is deployed: a process of its own, real sockets, a real engine, and real SDKs as clients."""
