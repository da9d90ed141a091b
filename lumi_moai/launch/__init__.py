"""Submitting jobs through submitit, and following what becomes of them."""
