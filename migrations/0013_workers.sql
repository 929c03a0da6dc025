-- How many workers an operator wants of a module instead of the number in its manifest; NULL: that number.
ALTER TABLE bulkhead_internal.modules ADD COLUMN workers integer CHECK (workers > 0);
