"""What a data set holds (`data info`) and which of its rows are faulty (`data validate`)."""
