"""The benchmark loop: closed-loop callers that measure latency, throughput, memory and energy."""
