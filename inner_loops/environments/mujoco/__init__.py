"""Bodies simulated by MuJoCo MJX, paid from 0 to 1, for constrained problems (extra ``mujoco``)."""
