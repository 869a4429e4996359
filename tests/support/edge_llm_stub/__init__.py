"""A stand-in for the wheel tensorrt-edgellm 0.11.0, which needs a Jetson's GPU: the same commands, flags and fields.

`test_wheel_contract.py` compares it with the wheel itself. It computes letters instead of a model.
"""
