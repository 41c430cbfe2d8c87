"""`make demo`: the shop live, with delays shrunk to seconds, and a check that everything ended as it should.

`story` is what happens, `expectations` what must have come of it, `view` what is shown, `processes` the broker and the
worker, `__main__` the whole.
"""
