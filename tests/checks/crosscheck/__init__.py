"""Other load generators against the simulator, whose latencies are known: AIPerf, guidellm and our own."""
