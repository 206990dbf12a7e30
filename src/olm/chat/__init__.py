"""From messages to a prompt and from tokens back to events: values and pure logic, no engine, no sockets."""
