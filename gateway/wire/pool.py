"""The descriptor pool that holds the messages of package `inference`.

tritonclient registers the same full names in protobuf's default pool; a pool of our own lets both live in one process.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
