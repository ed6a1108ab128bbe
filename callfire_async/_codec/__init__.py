"""Convert between bytes, plain mappings and models; the only package that imports xmltodict and cattrs."""
