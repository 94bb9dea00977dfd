"""What tests of several kinds share: a tiny classifier, small images, and an agent's folders."""
