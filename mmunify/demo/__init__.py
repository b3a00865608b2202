"""The demo: everything that mmunify does, in three minutes on two CPU cores, without the network."""

from mmunify.demo.run import run_demo

__all__ = ["run_demo"]
