"""A Slurm cluster, its file system, the network and mortal controllers, in one thread, by one seed.

Real: Engine, Driver, Writer, Journal, core, BackendWorker, SlurmBackend with Submitter, Monitor, staging. Simulated:
what they talk to. `shell` answers the scripts that they send, as ``sh`` would; `test_simulation` compares the two.
"""
