"""The run-time type checker of the tests: beartype, where an int is a float (PEP 484's numeric tower)."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
