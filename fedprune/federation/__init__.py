"""Flower: the ClientApp, the Strategy and the engines. The only room that imports flwr."""
