"""Keys, users, budgets and prices, managed over HTTP with the master key and from a shell.

``models`` say what may be asked and what is answered, ``issuing`` makes and turns keys; the handlers are
thin. Nothing here is asked while a call is served.
"""
