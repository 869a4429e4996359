"""HTTP for the OpenAI API: parsing, limits, origin check, errors, relaying and metering."""
