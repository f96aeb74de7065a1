"""Recordings on disk in, a prepared corpus out: manifests, speaker-disjoint splits and trial lists."""
