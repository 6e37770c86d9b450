"""Batch sources built from nested iterators, each of which carries its own state.

    documents            IndexedDocuments | StreamedDocuments       one rank's share, repeated or once
      -> Shuffled        next one drawn at random from a buffer
      -> Encoded         document -> array of integers
      -> PackedRows      arrays end to end, cut into full rows      | PaddedRows    one array a row
      -> Batches         rows stacked: what the trainer consumes

The state of a pipeline is the nesting of its stages' states, so a resumed run sees exactly the batches that the
uninterrupted one would have seen.
"""
