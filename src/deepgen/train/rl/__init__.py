"""Reinforcement: rollouts, rewards, advantages, a clipped surrogate, on the engine of the other stages."""
