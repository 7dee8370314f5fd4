"""The nouns of ML Programs, with the words of `MIL.proto`, and their protobuf messages."""
