"""Everything the host asks of an agent. All of it goes through `client.DeviceClient`."""
