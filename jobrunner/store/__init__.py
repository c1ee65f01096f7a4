"""Where jobs lie: the contract in ``protocol``, one package per database."""
