"""The vLLM engine: its command line, its build, its log, its HTTP."""
