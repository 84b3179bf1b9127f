"""How many channels a compiled loop works on together: known without the loops, whose import takes a moment."""

#: Of the direct form: numbers of channels out must be multiples of it, numbers of channels in too, or smaller.
DIRECT = 16

#: Of Winograd's form: numbers of channels must be multiples of it. Below 32 the direct form is as fast.
WINOGRAD = 32
