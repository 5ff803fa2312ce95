"""How networks are judged: while they train, and on folders through 8-bit files.

``metrics`` compares two pictures, ``judging`` runs a network on pictures in memory, ``protocol``
says what ``wic eval`` measures, ``command`` reads its arguments and prints its tables.
"""
