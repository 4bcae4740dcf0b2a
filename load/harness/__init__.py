"""What `load/run_load_test.sh` and `make load` are made of. Imports nothing of the gateway's code."""
