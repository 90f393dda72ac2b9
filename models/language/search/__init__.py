"""Plans that are searched or learned: influence of keys, gates of heads, routers of layers."""
