"""Dialects: pure translators between the wire structs of one API and the values of `olm.actors.client`."""
