"""Scratch servers: throw-away databases that drills restore into, each gone with all it held when its block is left."""
