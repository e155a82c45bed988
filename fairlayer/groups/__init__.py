"""Sensitive features -> groups: the only room that knows how group membership is encoded."""

from fairlayer.groups.groups import Column, Groups, Vocabulary, read_sensitive_features

__all__ = ["Column", "Groups", "Vocabulary", "read_sensitive_features"]
