def suits(*a): return False
