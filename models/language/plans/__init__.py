"""Plans of attention: which keys each head holds, and the files they are in."""
