"""The service as it is deployed: a process of its own, real sockets, a real engine behind it and real SDKs in front."""
