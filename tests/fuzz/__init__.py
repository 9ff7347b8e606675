"""Configuration under attack: whatever somebody writes, jobd takes it or says what is wrong with it."""
