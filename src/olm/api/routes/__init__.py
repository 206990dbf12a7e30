"""Routes: each decodes a body, calls one client function, encodes the answer. Nothing else is decided here."""
