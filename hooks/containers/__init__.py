"""How long the sound in a file really is, where its header does not say it or says it wrongly; a file a container."""
