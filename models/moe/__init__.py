"""Mixture-of-experts modules: router, experts, layer, losses."""

# name -> (module, class, one line); `headwise list moe` prints it. Nothing is registered yet.
MOE: dict[str, tuple[str, str, str]] = {}
