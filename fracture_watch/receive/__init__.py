"""DICOM objects from the network into the inbox: door -> storing -> landing, put together by receiver."""
