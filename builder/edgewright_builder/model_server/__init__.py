"""T1 and T2 behind HTTP: the key, the answer's JSON, and when a request is made again."""
