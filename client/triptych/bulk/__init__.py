"""A folder or a bucket of any number of images to Parquet files of what a server finds in them, on Ray Data.

`places` knows where images and results are, `job` what is to be done; `shard` does a part of it, `cluster` all of it.
"""
